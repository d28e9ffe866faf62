-- ordered
SELECT id, symbol, qty FROM lake.market.trades WHERE id < 200 ORDER BY qty DESC, id ASC LIMIT 50
