SELECT count(*) AS n FROM lake.market.trades WHERE symbol LIKE '%\_%' ESCAPE '\'
