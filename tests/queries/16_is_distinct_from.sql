SELECT count(*) AS n FROM lake.market.trades WHERE bid IS DISTINCT FROM ask
