# Prints notifications as oslo.messaging hands them to those who listen, one JSON
# document a line. The argument is a file of options such as services have.
import json
import sys

from oslo_config import cfg
import oslo_messaging

conf = cfg.ConfigOpts()
conf(["--config-file", sys.argv[1]])
conf.register_opts([cfg.StrOpt("listen_topic")])


class Endpoint:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        print(json.dumps({"priority": "info", "context": ctxt, "publisher": publisher_id, "type": event_type,
                          "payload": payload, "metadata": metadata}), flush=True)

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        print(json.dumps({"priority": "error", "type": event_type}), flush=True)


transport = oslo_messaging.get_notification_transport(conf)
target = oslo_messaging.Target(exchange=conf.control_exchange, topic=conf.listen_topic)
listener = oslo_messaging.get_notification_listener(transport, [target], [Endpoint()], executor="threading")
listener.start()
print(json.dumps({"type": "listening"}), flush=True)
sys.stdin.read()
listener.stop()
