SELECT id, ts + INTERVAL '1' DAY AS tomorrow FROM lake.market.trades WHERE id < 200
