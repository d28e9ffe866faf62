/** What io.trino.server.TrinoServer does, without the server archive, which is not on Maven Central after 476. */
public class TrinoMain {
  public static void main(String[] args) {
    new io.trino.server.Server().start(System.getProperty("trino.version"));
  }
}
