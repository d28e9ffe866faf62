SELECT id, symbol FROM lake.market.trades WHERE id < 50 UNION ALL SELECT id, venue FROM lake.market.trades WHERE id < 50
