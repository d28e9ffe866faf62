package org.apache.iceberg.rest;

import java.util.HashMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;

/** Iceberg's own REST test fixture on the loopback address only: its RESTCatalogServer listens on every one. */
public class LoopbackRestServer {
  public static void main(String[] args) throws Exception {
    // CATALOG_X_Y__Z in the environment becomes the catalog property x.y-z
    var config = new HashMap<>(RCKUtils.environmentCatalogConfig());
    config.putIfAbsent("catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog");
    config.putIfAbsent("jdbc.schema-version", "V1");
    var catalog = CatalogUtil.buildIcebergCatalog("rest", config, new Configuration());
    var adapter = new RESTServerCatalogAdapter(new RESTCatalogServer.CatalogContext(catalog, config));
    var handler = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    handler.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    var server = new Server();
    var connector = new ServerConnector(server);
    connector.setHost("127.0.0.1");
    connector.setPort(Integer.getInteger("rest.port"));
    server.addConnector(connector);
    server.setHandler(handler);
    server.start();
    System.out.println("iceberg REST on " + server.getURI());
    server.join();
  }
}
