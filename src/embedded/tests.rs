use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn serve_tells_its_addresses_and_ends_when_asked() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = tokio::sync::oneshot::channel::<Addresses>();
    let args = ServeArgs { topics: vec![("t".into(), 3)], registry_listen: ([127, 0, 0, 1], 0).into() };
    let ended = std::sync::Arc::new(AtomicBool::new(false));
    let served = tokio::spawn({
        let ended = std::sync::Arc::clone(&ended);
        async move {
            let result = serve(args, |addresses| tell.send(addresses.clone()).unwrap(), async {
                let _ = stopped.await;
            })
            .await;
            ended.store(true, Ordering::SeqCst);
            result
        }
    });
    let addresses = told.await.unwrap();
    let registry = addresses.registry_url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(registry).await.unwrap();
    connection.write_all(b"GET /subjects HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("[]"), "{answer}");
    TcpStream::connect(&addresses.bootstrap_servers).await.unwrap();
    assert!(!ended.load(Ordering::SeqCst));
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
    assert!(TcpStream::connect(registry).await.is_err(), "the registry still listens");
    assert!(TcpStream::connect(&addresses.bootstrap_servers).await.is_err(), "the broker still listens");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let taken = first.url().strip_prefix("http://").unwrap().parse().unwrap();
    let refused = Registry::start(taken).await.unwrap_err();
    assert!(matches!(&refused, crate::Error::Unreachable(why) if why.contains(&taken.to_string())), "{refused}");
}
