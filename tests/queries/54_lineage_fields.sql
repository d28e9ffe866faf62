-- firn:
SELECT t.id, t._kafka['topic'] AS topic, t._kafka['partition'] AS part, t._kafka['offset'] AS position FROM lake.market.trades t WHERE t.id < 500
-- trino:
SELECT t.id, t._kafka."topic" AS topic, t._kafka."partition" AS part, t._kafka."offset" AS position FROM lake.market.trades t WHERE t.id < 500
