SELECT id, coalesce(price, bid, ask) AS best, nullif(qty, 0) AS shares FROM lake.market.trades WHERE id < 500
