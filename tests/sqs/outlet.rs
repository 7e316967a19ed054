//! The outlet of kind `sqs`.

use owlpost::outlet::sqs::SqsOutlet;
use owlpost::outlet::{Outgoing, Outlet, OutletError};

use super::*;
use crate::proxy::{Fault, Proxy};

async fn outlet(endpoint: &str, url: &str) -> SqsOutlet {
    let options = owlpost::outlet::sqs::Options {
        identity: Identity { region: Some("elasticmq".into()), ..Identity::default() },
        endpoint_url: Some(endpoint.to_owned()),
        queue: Named::Url(url.to_owned()),
    };
    SqsOutlet::open(options).await.unwrap_or_else(|e| panic!("{e}"))
}

fn outgoing(n: usize) -> Outgoing {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned()), ("ce_id".to_owned(), n.to_string())];
    Outgoing { key: Some(format!("g{}", n % 2)), headers, body: format!("{{\"n\":{n}}}").into_bytes() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_outlet_hands_on_comes_out_of_the_source_as_it_was() {
    for url in [server().queue(&[]), server().fifo(&[])] {
        let outlet = outlet(server().endpoint(), &url).await;
        assert_eq!(outlet.place(), format!("sqs://{}", url.rsplit('/').next().unwrap()));
        let mut sent: Vec<Outgoing> = (0..25).map(outgoing).collect();
        sent.push(Outgoing { body: b"\xff\0 not text".to_vec(), ..outgoing(25) });
        assert!(outlet.send(&sent).await.iter().all(Result::is_ok));
        let mut source = open(&url).await;
        let mut bodies = BTreeSet::new();
        while bodies.len() < sent.len() {
            let batch = next(&mut source, ROOMY).await.unwrap();
            for message in &batch.messages {
                let of_it = sent.iter().find(|s| s.body == message.body).unwrap();
                for (name, value) in &of_it.headers {
                    assert_eq!(message.header(name), Some(value.as_str()));
                }
                bodies.insert(message.body.clone());
            }
            source.ack(batch.ack, &receipts(&batch)).await;
        }
        stop(source).await;
        assert_eq!(server().depth(&url), EMPTY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_the_outlet_has_its_own_answer() {
    let url = server().queue(&[]);
    let proxy = Proxy::start(server().endpoint());
    let outlet = outlet(proxy.url(), &url).await;
    // Tried again for what the server could not do, not for what it will never do.
    proxy.plan("SendMessageBatch", Fault::FailEntries { entries: 2, code: "InternalError", ours: false }, 1);
    let mut sent: Vec<Outgoing> = (0..5).map(outgoing).collect();
    sent.push(Outgoing { body: vec![b'x'; 1_100_000], ..outgoing(5) });
    let answers = outlet.send(&sent).await;
    assert!(answers[..5].iter().all(Result::is_ok), "{answers:?}");
    assert!(matches!(&answers[5], Err(OutletError::Refused(why)) if why.contains("1048576")), "{answers:?}");
    assert_eq!(server().drain(&url).len(), 5);
    proxy.plan("SendMessageBatch", Fault::FailEntries { entries: 1, code: "InvalidMessageContents", ours: true }, 1);
    let answers = outlet.send(&sent[..2]).await;
    assert!(matches!(&answers[..], [Err(OutletError::Refused(_)), Ok(())]), "{answers:?}");
    proxy.plan("SendMessageBatch", Fault::Answer { status: 403, code: "AccessDenied" }, 1);
    let answers = outlet.send(&sent[..1]).await;
    assert!(matches!(&answers[0], Err(OutletError::Fatal(why)) if why.contains("sqs:SendMessage")), "{answers:?}");
    server().drain(&url);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_as_a_whole_condemns_none_of_its_messages() {
    let url = server().fifo(&[]);
    let proxy = Proxy::start(server().endpoint());
    let outlet = outlet(proxy.url(), &url).await;
    let sent: Vec<Outgoing> = (0..5).map(|n| Outgoing { key: None, ..outgoing(n) }).collect();
    // The call of all five, and then the first of them alone.
    proxy.plan("SendMessageBatch", Fault::Answer { status: 400, code: "BatchRequestTooLong" }, 2);
    let answers = outlet.send(&sent).await;
    assert!(matches!(&answers[..], [Err(OutletError::Refused(_)), Ok(()), Ok(()), Ok(()), Ok(())]), "{answers:?}");
    let arrived: Vec<String> = server().drain(&url).into_iter().map(|m| m.body.unwrap()).collect();
    assert_eq!(arrived, (1..5).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>(), "in their order");
}
