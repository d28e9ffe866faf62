SELECT CAST(ts AS DATE) AS day, count(*) AS n, min(ts) AS first, max(ts) AS last FROM lake.market.trades GROUP BY CAST(ts AS DATE)
