//! `firn broker`: the embedded parts as servers for development.

use std::net::SocketAddr;

use super::{Output, TopicSpec, print, stop_signal};
use crate::Result;
use crate::embedded::{Addresses, ServeArgs, serve};

/// `firn broker`.
#[derive(Debug, Clone)]
pub struct BrokerArgs {
    /// Where the registry listens. The broker takes a free port of 127.0.0.1 and says which.
    pub registry_listen: SocketAddr,
    /// Topics to create.
    pub topics: Vec<TopicSpec>,
}

/// Serves the embedded broker and registry until the process is told to stop.
///
/// # Errors
/// [`Error::Unreachable`](crate::Error::Unreachable) when the address is taken, [`Error::Config`](crate::Error::Config) for
/// topics that Kafka would refuse.
pub async fn broker(args: BrokerArgs, out: Output<'_>) -> Result<()> {
    let stop = stop_signal()?;
    let topics: Vec<(String, i32)> = args.topics.iter().map(|t| (t.name.clone(), t.partitions)).collect();
    let sample = topics.first().map_or("trades", |(name, _)| name.as_str()).to_owned();
    let mut printed = Ok(());
    let ready = |addresses: &Addresses| {
        printed = print(out, &greeting(addresses, &sample));
        if printed.is_err() {
            stop.cancel();
        }
    };
    serve(ServeArgs { topics, registry_listen: args.registry_listen }, ready, stop.cancelled()).await?;
    printed
}

/// The addresses, and settings that use them.
fn greeting(addresses: &Addresses, topic: &str) -> String {
    let Addresses { bootstrap_servers, registry_url } = addresses;
    format!(
        "kafka broker     {bootstrap_servers}\n\
         schema registry  {registry_url}\n\
         everything is in memory and is gone when this ends (Ctrl-C)\n\
         \n\
         # a firn.yaml for it:\n\
         kafka:\n\
         \x20 brokers: {bootstrap_servers}\n\
         schema_registry:\n\
         \x20 url: {registry_url}\n\
         catalogs:\n\
         \x20 lake:\n\
         \x20   type: iceberg-sql\n\
         \x20   uri: sqlite:data/catalog.db\n\
         \x20   warehouse: ./data/warehouse\n\
         pipelines:\n\
         \x20 sample:\n\
         \x20   topics: [{topic}]\n\
         \x20   tables:\n\
         \x20     - {{catalog: lake, name: \"dev.{table}\", format_version: 3}}\n",
        table = topic.replace(['.', '-'], "_"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_sample_is_a_valid_settings_file() {
        let addresses =
            Addresses { bootstrap_servers: "127.0.0.1:4242".into(), registry_url: "http://127.0.0.1:8081".into() };
        let text = greeting(&addresses, "market.trades-1");
        let yaml = text.split_once("# a firn.yaml").unwrap().1.split_once('\n').unwrap().1;
        let settings = Settings::parse(yaml, std::path::Path::new("/base"), &|_| None).unwrap();
        assert_eq!(settings.pipelines["sample"].tables[0].name, "market_trades_1");
    }

    #[tokio::test]
    async fn an_address_in_use_ends_with_3_and_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let registry_listen = taken.local_addr().unwrap();
        let error = broker(BrokerArgs { registry_listen, topics: Vec::new() }, &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains(&registry_listen.to_string()), "{error}");
    }
}
