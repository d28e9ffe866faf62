SELECT order_id, signature, checksum FROM lake.market.orders
