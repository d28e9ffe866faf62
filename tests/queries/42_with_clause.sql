WITH per_symbol AS (SELECT symbol, count(*) AS n FROM lake.market.trades GROUP BY symbol), most AS (SELECT max(n) AS n FROM per_symbol)
SELECT p.symbol, p.n FROM per_symbol p JOIN most m ON p.n = m.n
