"""Tables, migrations, the one writer; what is written as it happens."""
