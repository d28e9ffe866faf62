-- firn:
SELECT order_id, CAST(coalesce(array_length(tags), 0) AS BIGINT) AS n FROM lake.market.orders
-- trino:
SELECT order_id, cardinality(tags) AS n FROM lake.market.orders
