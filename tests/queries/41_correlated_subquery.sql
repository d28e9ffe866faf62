SELECT t.id, t.symbol FROM lake.market.trades t WHERE t.qty = (SELECT max(o.qty) FROM lake.market.trades o WHERE o.symbol = t.symbol)
