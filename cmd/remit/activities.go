package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remitlog/remit/cmd/remit/api"
)

func newActivities(a *app) *cobra.Command {
	return group("activities", "Look at activities, payments and refunds among them", newActivitiesGet(a), newActivitiesList(a))
}

var activityColumns = []column[api.Activity]{
	{"id", func(x api.Activity) string { return x.ID.String() }},
	{"name", func(x api.Activity) string { return x.Name }},
	{"kind", func(x api.Activity) string { return x.Kind }},
	{"key", func(x api.Activity) string { return x.Key }},
	{"state", func(x api.Activity) string { return x.State }},
	{"reason", func(x api.Activity) string { return x.Reason }},
	{"actions", func(x api.Activity) string {
		var all []string
		for _, action := range x.Actions {
			all = append(all, action.Name+" "+action.State)
		}
		return strings.Join(all, ", ")
	}},
	{"created", func(x api.Activity) string { return when(x.CreatedAt) }},
}

func newActivitiesGet(a *app) *cobra.Command {
	return verb("get ID", "Show an activity, by id or by name", cobra.ExactArgs(1), func(c *cobra.Command, args []string) error {
		return one(c.Context(), a, http.MethodGet, at("activities", args[0]), nil, activityColumns...)
	})
}

func newActivitiesList(a *app) *cobra.Command {
	var state, participant string
	var l listFlags
	c := verb("list", "List activities", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return listed(c.Context(), a, at("activities"), append(l.span(), "state", state, "participant", participant), l.limit, activityColumns...)
	})
	c.Flags().StringVar(&state, "state", "", "trying, confirming, cancelling, confirmed or cancelled")
	c.Flags().StringVar(&participant, "participant", "", "with an action of this participant")
	l.add(c, true)
	return c
}
