SELECT symbol, venue, count(*) AS n FROM lake.market.trades WHERE id < 1000 GROUP BY GROUPING SETS ((symbol, venue), (symbol), ())
