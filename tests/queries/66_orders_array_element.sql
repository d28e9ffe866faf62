-- firn:
SELECT order_id, array_element(tags, 1) AS first, array_element(scores, 2) AS second FROM lake.market.orders
-- trino:
SELECT order_id, element_at(tags, 1) AS first, element_at(scores, 2) AS second FROM lake.market.orders
