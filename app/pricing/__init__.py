"""Prices and what things cost at them.

    cost of a task     = model spend + compute + orchestration
    model spend        = for each call and kind of token: tokens x price per million / 1,000,000
    compute            = active seconds x rate             (a durable wait is not active and costs nothing)
    orchestration      = persisted writes x price of a write + bytes x months kept x price + log bytes x price

Each quantity says how it is known, and each charge names its price and the digest of its price book. Amounts are exact
decimals; they are rounded only where they are shown. `docs/cost-model.md` has the rules.

    price_file    reads config/prices.yaml             list_prices     what providers publish (genai-prices)
    book          which price applies                  litellm_prices  a second published list, to compare with
    schedule      one price, by kind of token          providers       the providers' names
    check         mistakes in a price book             show            prices as rows for people
    charge_types  usage, work, charges, model calls    formula         what a call and a step's work cost
    model_facts   context limits and retirement dates
"""
