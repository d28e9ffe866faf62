SELECT order_id, customer, lines, tags, scores, attributes, counters FROM lake.market.orders
