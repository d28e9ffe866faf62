SELECT status, CAST(sum(total) AS DECIMAL(38, 2)) AS total, min(discount) AS least, max(total) AS most FROM lake.market.orders GROUP BY status
