SELECT paid, count(*) AS n FROM lake.market.orders WHERE (paid OR previous_status IS NOT NULL) AND NOT (revision > 3) GROUP BY paid
