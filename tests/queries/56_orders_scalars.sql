SELECT order_id, status, previous_status, total, discount, ordered_on, created_at, updated_at, local_time, paid, revision FROM lake.market.orders
