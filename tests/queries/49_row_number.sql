SELECT id, symbol, CAST(row_number() OVER (PARTITION BY symbol ORDER BY ts DESC, id DESC) AS BIGINT) AS place FROM lake.market.trades WHERE id < 1000
