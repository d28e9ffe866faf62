SELECT id, lag(qty) OVER (PARTITION BY symbol ORDER BY id) AS before, lead(qty, 2) OVER (PARTITION BY symbol ORDER BY id) AS after FROM lake.market.trades WHERE id < 1000
