SELECT count(*) AS n FROM lake.market.orders WHERE previous_address IS NULL
