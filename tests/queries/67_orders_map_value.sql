-- firn:
SELECT order_id, attributes['channel'] AS channel, counters['views'] AS views FROM lake.market.orders
-- trino:
SELECT order_id, element_at(attributes, 'channel') AS channel, element_at(counters, 'views') AS views FROM lake.market.orders
