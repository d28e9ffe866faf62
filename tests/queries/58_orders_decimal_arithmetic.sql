SELECT order_id, CAST(total * 2 AS DECIMAL(30, 2)) AS twice, CAST(total - coalesce(discount, CAST(0 AS DECIMAL(9, 4))) AS DECIMAL(30, 4)) AS net FROM lake.market.orders
