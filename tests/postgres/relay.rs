//! The way from the other instances to one of them, which can be cut.

use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Relay {
    pub(crate) address: String,
    open: Arc<watch::Sender<bool>>,
}

impl Relay {
    /// Passes connections on to `to`, from now on.
    pub(crate) async fn to(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let open = Arc::new(watch::Sender::new(true));
        let opened = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let (to, mut open) = (to.clone(), opened.subscribe());
                tokio::spawn(async move {
                    let pass = async {
                        let mut there = TcpStream::connect(to).await?;
                        copy_bidirectional(&mut from, &mut there).await
                    };
                    tokio::select! {
                        // Whichever side ends, the other one sees it.
                        _ = pass => {}
                        _ = open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }

    /// Ends all connections, and every new one at once, until [`Relay::mend`].
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}
