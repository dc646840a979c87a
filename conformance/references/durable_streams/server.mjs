// Reference server of the Durable Streams protocol, in memory. Environment: PORT.

import { DurableStreamTestServer } from "@durable-streams/server";

await new DurableStreamTestServer({ host: "127.0.0.1", port: Number(process.env.PORT) }).start();
