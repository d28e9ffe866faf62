SELECT DISTINCT replace(symbol, 'A', '-') AS r, CAST(strpos(symbol, 'A') AS BIGINT) AS p, reverse(venue) AS v FROM lake.market.trades
