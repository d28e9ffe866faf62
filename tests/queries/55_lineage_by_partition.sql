-- firn:
SELECT t._kafka['partition'] AS part, count(*) AS n, max(t._kafka['offset']) AS newest FROM lake.market.trades t GROUP BY t._kafka['partition']
-- trino:
SELECT t._kafka."partition" AS part, count(*) AS n, max(t._kafka."offset") AS newest FROM lake.market.trades t GROUP BY t._kafka."partition"
