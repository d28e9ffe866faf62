-- ordered
SELECT id, qty FROM lake.market.trades WHERE id < 300 ORDER BY qty, id
