SELECT id, ts FROM lake.market.trades WHERE id < 500
