"""RabbitMQ as an end of `dibs move`: `source.py` and `haul.py` take jobs out, `sink.py` and `proof.py` bring them."""
