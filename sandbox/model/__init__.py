"""The sandbox's model: the providers' wire protocols in front, a rule engine behind them, a meter between."""
