SELECT symbol, id, ts FROM (SELECT symbol, id, ts, CAST(row_number() OVER (PARTITION BY symbol ORDER BY ts DESC, id DESC) AS BIGINT) AS place FROM lake.market.trades) r WHERE place = 1
