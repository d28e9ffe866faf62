SELECT symbol, count(*) AS n, count(price) AS priced, sum(qty) AS volume, min(price) AS low, max(price) AS high
FROM lake.market.trades GROUP BY symbol
