"""Runs SQL statements in one local Spark and prints the rows of the last one as JSON lines. spark.sh calls it."""
import json
import os
import sys

from pyspark.sql import SparkSession

warehouse = os.environ["FIRN_WAREHOUSE"]
# Iceberg's JDBC catalog keeps its tables under the name the engine gives the catalog, so the one shared with Trino must be called "lake" here
lakes = {
    "sqlite": {"type": "jdbc", "uri": f"jdbc:sqlite:{warehouse}/sqlite/catalog.db", "jdbc.schema-version": "V1", "warehouse": f"file://{warehouse}/sqlite"},
    "postgres": {"type": "jdbc", "uri": f"jdbc:postgresql://{os.environ['FIRN_POSTGRES']}/iceberg", "jdbc.schema-version": "V1",
                 "jdbc.user": "firn", "jdbc.password": "firn", "warehouse": f"file://{warehouse}/postgres"},
}
# One of them for each call: Iceberg's rewrites UPDATE of Delta tables too, and fails.
delta = any("delta.`" in statement for statement in sys.argv[1:])
extension = "io.delta.sql.DeltaSparkSessionExtension" if delta else "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
catalogs = {"lake": lakes[os.environ.get("FIRN_SPARK_LAKE", "sqlite")], "rest": {"type": "rest", "uri": os.environ["FIRN_REST"]}}
builder = (SparkSession.builder.master("local[2]").appName("firn-interop")
           .config("spark.jars", os.environ["FIRN_SPARK_JARS"]).config("spark.ui.enabled", "false")
           .config("spark.driver.extraClassPath", os.environ["FIRN_SPARK_JARS"].replace(",", ":"))
           .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
           .config("spark.driver.memory", "1g").config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC")
           .config("spark.sql.jsonGenerator.ignoreNullFields", "false")
           .config("spark.sql.extensions", extension))
if delta:
    builder = builder.config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
for name, properties in catalogs.items():
    builder = builder.config(f"spark.sql.catalog.{name}", "org.apache.iceberg.spark.SparkCatalog")
    for key, value in properties.items():
        builder = builder.config(f"spark.sql.catalog.{name}.{key}", value)
# Iceberg's vectorised reader refuses the delta encodings that Trino writes; "false" reads them row by row. It stays on otherwise, because
# tables that only the slow reader can open would be a fault of Firn's.
builder = builder.config("spark.sql.iceberg.vectorization.enabled", os.environ.get("FIRN_SPARK_VECTORIZED", "true"))
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
frame = None
for statement in sys.argv[1:]:
    frame = spark.sql(statement)
for row in frame.toJSON().collect():
    print(json.dumps(json.loads(row), ensure_ascii=False))
