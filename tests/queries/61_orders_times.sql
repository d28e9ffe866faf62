SELECT order_id, cutoff, picked_at FROM lake.market.orders
