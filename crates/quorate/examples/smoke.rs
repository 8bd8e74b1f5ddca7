use quorate_core::protocol::Consistency;
use quorate_machines::{Kv, kv::{Operation, Query, Reply}};
use quorate_protocols::vr::{Config, Vr};
use quorate_runtime::local::Local;
use std::time::Instant;
fn main() {
    let t = Instant::now();
    let cluster = Local::start::<Vr, _>(3, Config::default(), Kv::new).unwrap();
    let client = cluster.client::<Vr>().unwrap();
    let a = client.apply(Operation::put("a", "1").encode().unwrap()).unwrap();
    println!("first put {:?} {:?}", t.elapsed(), Reply::decode(&a.reply));
    let r = client.read(Consistency::Linearizable, Query::get("a").encode().unwrap()).unwrap();
    println!("get {:?}", Reply::decode(&r.reply).unwrap().get());
    let mut lat = vec![];
    for i in 0..2000u32 { let t = Instant::now(); client.apply(Operation::put(format!("k{i}"), vec![7u8;256]).encode().unwrap()).unwrap(); lat.push(t.elapsed()); }
    lat.sort(); println!("p50 {:?} p99 {:?}", lat[1000], lat[1980]);
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cfg, key) = cluster.cluster();
    rt.block_on(async {
        let c = quorate_runtime::client::Client::connect::<Vr>(cfg, key, Default::default()).unwrap();
        let t = Instant::now();
        let mut tasks = vec![];
        for w in 0..256u32 { let c = c.clone(); tasks.push(tokio::spawn(async move { for i in 0..400u32 { c.apply(Operation::put(format!("k{w}-{i}"), vec![7u8;256]).encode().unwrap()).await.unwrap(); } })); }
        for t in tasks { t.await.unwrap(); }
        println!("256 in flight: {:.0} op/s", 102400.0 / t.elapsed().as_secs_f64());
        for i in 0..3 { println!("{:?}", c.status(quorate_core::ids::ReplicaId::new(i), std::time::Duration::from_secs(2)).await); }
    });
}
