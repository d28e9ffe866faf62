SELECT order_id, weight, distance FROM lake.market.orders WHERE distance IS NOT NULL
