SELECT id FROM lake.market.trades WHERE id < 100 EXCEPT SELECT id FROM lake.market.trades WHERE qty IS NULL
