SELECT id, symbol FROM lake.market.trades WHERE symbol LIKE 'A%' AND venue NOT LIKE '%X_' AND id < 2000
