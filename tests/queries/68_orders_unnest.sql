-- firn:
SELECT order_id, unnest(tags) AS tag FROM lake.market.orders
-- trino:
SELECT order_id, tag FROM lake.market.orders CROSS JOIN UNNEST(tags) AS u (tag)
