SELECT count(*) AS n FROM lake.market.trades WHERE symbol NOT IN (SELECT symbol FROM lake.market.trades WHERE id = 1)
