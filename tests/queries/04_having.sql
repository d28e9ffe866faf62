SELECT symbol, venue, count(*) AS n FROM lake.market.trades GROUP BY symbol, venue HAVING count(*) > 1 AND min(id) >= 0
