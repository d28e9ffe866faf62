-- ordered
SELECT ordered_on, count(*) AS n FROM lake.market.orders WHERE ordered_on >= DATE '2026-01-01' GROUP BY ordered_on ORDER BY ordered_on
