SELECT count(*) AS n FROM lake.market.trades WHERE CAST(price AS DECIMAL(18, 4)) BETWEEN 10.5 AND 250.75
